// kstatus reads JSON objects from standard input, one after the other, and
// prints what Flux makes of each: one line with the status and the reason.
//
// It calls the library that Flux itself links, so that the test does not
// compare our conditions with our own idea of the rules.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// reading is one line of the output.
type reading struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := readAll(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func readAll(in io.Reader, out io.Writer) error {
	objects := json.NewDecoder(bufio.NewReader(in))
	lines := json.NewEncoder(out)
	for {
		// Not a plain map: kstatus wants whole numbers as int64, as the API machinery decodes them.
		object := &unstructured.Unstructured{}
		if err := objects.Decode(object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		computed, err := status.Compute(object)
		if err != nil {
			return err
		}
		if err := lines.Encode(reading{computed.Status.String(), computed.Message}); err != nil {
			return err
		}
	}
}
