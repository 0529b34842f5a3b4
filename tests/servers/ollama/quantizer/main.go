// llama.cpp's own quantizer, out of the copy that Ollama is built with: quantizer IN OUT FILE_TYPE THREADS
//
// It is what our own files are held against. The declarations are those of llama.h, written out because the header's folder
// is known to the package that compiles llama.cpp alone.
package main

/*
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
	int32_t nthread;
	int ftype;
	int output_tensor_type;
	int token_embedding_type;
	bool allow_requantize;
	bool quantize_output_tensor;
	bool only_copy;
	bool pure;
	bool keep_split;
	void *imatrix;
	void *kv_overrides;
	void *tensor_types;
	void *prune_layers;
} quantize_params;

extern quantize_params llama_model_quantize_default_params(void);
extern uint32_t llama_model_quantize(const char *in, const char *out, const quantize_params *params);
extern void llama_backend_init(void);
*/
import "C"

import (
	"fmt"
	"os"
	"strconv"

	_ "github.com/ollama/ollama/llama"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: quantizer IN OUT FILE_TYPE THREADS")
		os.Exit(64)
	}
	kind, wrong := strconv.Atoi(os.Args[3])
	threads, odd := strconv.Atoi(os.Args[4])
	if wrong != nil || odd != nil {
		fmt.Fprintln(os.Stderr, "FILE_TYPE and THREADS are numbers")
		os.Exit(64)
	}
	C.llama_backend_init()
	params := C.llama_model_quantize_default_params()
	params.ftype = C.int(kind)
	params.nthread = C.int32_t(threads)
	if code := C.llama_model_quantize(C.CString(os.Args[1]), C.CString(os.Args[2]), &params); code != 0 {
		fmt.Fprintln(os.Stderr, "llama_model_quantize ended with", uint32(code))
		os.Exit(1)
	}
}
