"""Which files of a repository are text that somebody wrote, and in which language."""

from __future__ import annotations

from pathlib import PurePosixPath

# fmt: off
LANGUAGES = {
    ".cs": "csharp", ".csproj": "xml", ".sln": "text", ".razor": "razor", ".cshtml": "razor", ".fs": "fsharp", ".vb": "vb",
    ".py": "python", ".pyi": "python", ".go": "go", ".mod": "go-module", ".rs": "rust", ".java": "java", ".kt": "kotlin",
    ".kts": "kotlin", ".scala": "scala", ".groovy": "groovy", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp",
    ".hpp": "cpp", ".swift": "swift", ".m": "objective-c", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".vue": "vue", ".svelte": "svelte", ".css": "css",
    ".scss": "css", ".rb": "ruby", ".php": "php", ".pl": "perl", ".lua": "lua", ".r": "r", ".jl": "julia", ".hs": "haskell",
    ".ml": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".clj": "clojure", ".dart": "dart",
    ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ps1": "powershell", ".sql": "sql", ".proto": "protobuf",
    ".graphql": "graphql", ".thrift": "thrift",
    ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".jsonc": "json", ".toml": "toml", ".ini": "ini", ".cfg": "ini",
    ".conf": "conf", ".properties": "properties", ".xml": "xml", ".config": "xml", ".tf": "terraform", ".hcl": "hcl",
    ".nix": "nix", ".bicep": "bicep", ".rego": "rego", ".cue": "cue", ".jsonnet": "jsonnet", ".libsonnet": "jsonnet",
    ".tpl": "template", ".tmpl": "template", ".j2": "template", ".jinja": "template", ".jinja2": "template",
    ".gotmpl": "template", ".liquid": "template", ".mustache": "template", ".hbs": "template", ".erb": "template",
    ".html": "html", ".md": "markdown", ".rst": "rst", ".adoc": "asciidoc", ".txt": "text", ".mk": "make",
    ".cmake": "cmake", ".dockerfile": "dockerfile", ".gradle": "groovy", ".service": "systemd",
}
NAMES = {
    "dockerfile": "dockerfile", "containerfile": "dockerfile", "makefile": "make", "gnumakefile": "make",
    "jenkinsfile": "groovy", "vagrantfile": "ruby", "gemfile": "ruby", "rakefile": "ruby", "tiltfile": "python",
    "cmakelists.txt": "cmake", "justfile": "just", "procfile": "text", "codeowners": "text",
}
LEFT_OUT = (
    "**/node_modules/**", "**/vendor/**", "**/third_party/**", "**/bower_components/**", "**/.venv/**", "**/venv/**",
    "**/site-packages/**", "**/dist/**", "**/build/**", "**/target/**", "**/bin/**", "**/obj/**", "**/__pycache__/**",
    "**/*.min.js", "**/*.min.css", "**/*.map", "**/*.lock", "**/package-lock.json", "**/pnpm-lock.yaml",
    "**/packages.lock.json", "**/go.sum", "**/*.Designer.cs", "**/*.g.cs", "**/*.generated.*", "**/*.pb.go", "**/*_pb2.py",
    "**/*_pb2_grpc.py", "**/*.snap", "**/*.svg",
)
"""Lock files, and what programs wrote or others did."""
# fmt: on


def language_of(path: str) -> str | None:
    """By the name alone; None for a file that is not known to be text."""
    name = PurePosixPath(path.lower())
    return NAMES.get(name.name) or LANGUAGES.get(name.suffix)
