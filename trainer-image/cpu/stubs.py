"""Make an installed CUDA build of torch run on a machine without CUDA, at a quarter of its size.

The Linux wheel of torch in the package index is the CUDA build: it links against some 2.7 GB of NVIDIA libraries and
carries 540 MB of kernels of its own, none of which a CPU can use. There is no other wheel. But the dynamic loader only
asks that every library which is *named* exists and that every *data* symbol resolves; functions may be anything until
called.

So this script
1. deletes torch's own pure CUDA libraries (`DROPPED`),
2. lists what the remaining ones still name: libraries that are not there, and symbols nobody defines,
3. compiles one stub library per missing name, with the same soname and symbol versions, in which
   - a C function (cudart, cupti, cudnn...) returns 100, which is cudaErrorNoDevice: `torch.cuda.is_available()` is False,
   - a C function that returns text returns text,
   - a C++ function says its name and aborts (nothing calls one without a device, except SLOT and OPTIONS while loading),
   - a data symbol is zeroed memory of the original's size, and a type descriptor is a real, empty one,
4. takes the import of torch's Python-written CUDA operators out (they wrap kernels that are gone).

Kernels and hooks register themselves when libtorch_cuda is loaded, so without it torch is exactly the CPU build: smaller,
and quicker to import. The stubs belong to the wheel they were made from; build them again for another torch version.

Usage: stubs.py SITE_PACKAGES     (needs a C compiler as `cc`, and binutils; running it twice does no harm)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

DROPPED = ("libtorch_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so")
# Folders of the wheel that only building extensions or running torch's own tests needs.
UNUSED = ("test", "include", "share")
# Answered by the system (or by the driver's absence), never stubbed.
SYSTEM = re.compile(r"^(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libgomp|libquadmath|libz|ld-linux.*)[.-]")
# Called while torch loads: each returns a place where the caller leaves a pointer for the CUDA half.
SLOT = re.compile(r"^_ZN4c10d\d+get_gil_checkerEv$")
# Also called while torch loads: default arguments of Python bindings. Each becomes an object whose virtual functions
# do nothing and whose type no one knows, so that the binding takes it for what its signature says.
OPTIONS = re.compile(r"^_ZN4c10d\w*7OptionsC[12]E")
RUNTIME = ("libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libgomp.so.1")
# Functions whose callers print the returned pointer.
TEXT = re.compile(r"Get(Error)?(String|Name)$|GetErrorText$")


@dataclass(frozen=True)
class Symbol:
    """One dynamic symbol: `kind` as readelf names it, `version` and `library` only where the ELF file binds them."""

    name: str
    kind: str
    size: int
    defined: bool
    weak: bool
    version: str = ""
    library: str = ""


@dataclass
class Stub:
    """What one missing library must provide."""

    functions: set[str] = field(default_factory=set)
    objects: dict[str, int] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    torch = Path(argv[1]) / "torch"
    libraries = torch / "lib"
    if not libraries.is_dir():
        print(f"no torch in {argv[1]}: install it there first, with pip's --no-deps", file=sys.stderr)
        return 66
    found = re.search(r"__version__ = '([^']+)'", (torch / "version.py").read_text())
    made_from = f"torch {found[1] if found else 'of unknown version'}\n"
    marker = libraries / "stubs-made-from"
    # After a reinstallation of torch the marker may have survived, but the big libraries are back.
    whole = any((libraries / name).exists() and (libraries / name).stat().st_size > 2**20 for name in DROPPED)
    if not whole and marker.exists() and marker.read_text() == made_from:
        print(f"stubs for {made_from.strip()} are in place")
        return 0

    originals: dict[str, Symbol] = {}
    for name in DROPPED:
        path = libraries / name
        if path.exists():
            originals |= {s.name: s for s in symbols(path) if s.defined}
            path.unlink()
    for path in [*libraries.glob("libcu*.so.*"), *libraries.glob("libnv*.so.*")]:
        path.unlink()  # stubs of an earlier run; the wheel itself brings none of these
    kept = sorted({*libraries.glob("*.so*"), *torch.glob("_C*.so")})
    stubs = plan(kept, originals)
    for soname, stub in stubs.items():
        build(libraries / soname, stub)
    operators = torch / "_native" / "ops" / "__init__.py"
    if operators.exists():
        for compiled in operators.parent.glob("__pycache__/__init__.*"):
            compiled.unlink()
        operators.unlink()  # never written in place: the installer may share the file with its cache by a hard link
        operators.write_text('"""Left empty: every operator in here overrides a CUDA kernel, and there are none."""\n')
    for folder in UNUSED:
        subprocess.run(["rm", "-rf", str(torch / folder)], check=True)
    marker.write_text(made_from)
    print(f"{made_from.strip()} without CUDA; stubs: {', '.join(sorted(stubs)) or 'none'}")
    return 0


def plan(kept: list[Path], originals: dict[str, Symbol]) -> dict[str, Stub]:
    """Return the libraries that `kept` files name and nobody provides, with the symbols they must define."""
    present = {path.name for path in kept}
    missing = {name for path in kept for name in needed(path) if name not in present and not SYSTEM.match(name)}
    stubs = {name: Stub() for name in missing}
    table = [symbol for path in kept for symbol in symbols(path)]
    # Some references carry no version even to the C and C++ run-time libraries.
    system = [Path(output("cc", f"-print-file-name={name}").strip()) for name in RUNTIME]
    table += [symbol for path in system if path.is_absolute() for symbol in symbols(path) if symbol.defined]
    defined = {symbol.name for symbol in table if symbol.defined}
    # A symbol without a version may live in any library of the process; one that is always loaded gets them all.
    anywhere = "libtorch_cuda.so" if "libtorch_cuda.so" in missing else min(missing, default="")
    for symbol in table:
        if symbol.defined or symbol.weak or symbol.name in defined or symbol.name.startswith(("Py", "_Py")):
            continue
        if symbol.library and symbol.library not in missing:
            continue
        stub = stubs[symbol.library or anywhere]
        original = originals.get(symbol.name, symbol)
        if original.kind == "OBJECT":
            stub.objects[symbol.name] = max(original.size, 8)
        else:
            stub.functions.add(symbol.name)
        if symbol.version:
            stub.versions[symbol.version].add(symbol.name)
    return stubs


def needed(path: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-W", "-d", str(path)))


def symbols(path: Path) -> list[Symbol]:
    """Read the dynamic symbol table; which library a version belongs to comes from the version-needs section."""
    origin: dict[str, str] = {}
    library = ""
    for line in output("readelf", "-W", "-V", str(path)).splitlines():
        if found := re.search(r"Version: 1\s+File: (\S+)", line):
            library = found[1]
        elif library and (found := re.search(r"Name: (\S+)\s+Flags", line)):
            origin[found[1]] = library
    result = []
    for line in output("readelf", "-W", "--dyn-syms", str(path)).splitlines():
        columns = line.split()
        if len(columns) < 8 or not re.fullmatch(r"\d+:", columns[0]):
            continue
        name, _, version = columns[7].partition("@")
        version = version.lstrip("@")
        undefined = columns[6] == "UND"
        result.append(
            Symbol(
                name=name,
                kind=columns[3],
                size=int(columns[2], 0),
                defined=not undefined,
                weak=columns[4] == "WEAK",
                version=version if undefined else "",
                library=origin.get(version, "") if undefined else "",
            )
        )
    return result


def build(path: Path, stub: Stub) -> None:
    """Compile one stub library."""
    lines = ["extern int puts(const char *); extern void abort(void);"]
    lines.append("extern char _ZTVN10__cxxabiv117__class_type_infoE[]; static void nothing(void) {}")
    lines.append('static const void *unknown[] = { _ZTVN10__cxxabiv117__class_type_infoE + 16, "7unknown" };')
    lines.append(f"static void *vtable[] = {{ 0, unknown, {', '.join(['nothing'] * 16)} }};")
    for name in sorted(stub.functions):
        if SLOT.search(name):
            lines.append(f"static void *slot_{name}[8]; void *{name}(void) {{ return slot_{name}; }}")
        elif OPTIONS.search(name):
            lines.append(f"void {name}(void **self) {{ self[0] = vtable + 2; }}")
        elif name.startswith("_Z"):
            lines.append(f'void {name}(void) {{ puts("{name}: this torch has no CUDA in it"); abort(); }}')
        elif TEXT.search(name):
            lines.append(f'const char *{name}(void) {{ return "no CUDA in this torch"; }}')
        else:
            lines.append(f"long {name}(void) {{ return 100; }}")
    for name, size in sorted(stub.objects.items()):
        if name.startswith("_ZTI"):
            lines.append(f'const void *{name}[] = {{ _ZTVN10__cxxabiv117__class_type_infoE + 16, "{name[4:]}" }};')
        else:
            lines.append(f"char {name}[{size}] __attribute__((aligned(16)));")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "stub.c"
        source.write_text("\n".join(lines) + "\n")
        command = ["cc", "-w", "-fno-builtin", "-nostdlib", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{path.name}"]
        if stub.versions:
            script = Path(folder) / "versions.map"
            script.write_text(
                "".join(f"{v} {{ global: {'; '.join(sorted(names))}; }};\n" for v, names in stub.versions.items())
            )
            command.append(f"-Wl,--version-script={script}")
        subprocess.run([*command, "-o", str(path), str(source)], check=True)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv))
