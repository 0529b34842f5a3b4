"""GGUF, the format of llama.cpp and of what is built on it: from a model folder to files of several precisions.

    model/  --converter (a subprocess)-->  f16  --recipe, row by row-->  Q8_0, Q6_K, Q5_K_M, Q4_K_M

All of it works on folders and knows no run.
"""
