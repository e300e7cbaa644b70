// Reads a log as any monitor does: main <address of the log> <verifier key>. Prints the number of entries that it
// verified, and the last one.
//
// main cosign <name>: prints the verifier key of a new witness with ML-DSA-44, and the checkpoint of standard input with
// its cosignature.
package main

import (
	"context"
	"crypto/mldsa"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	if os.Args[1] == "cosign" {
		cosign(os.Args[2])
		return
	}
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	answer, err := http.Get(os.Args[1] + "/checkpoint")
	check(err)
	data, err := io.ReadAll(answer.Body)
	check(err)
	signed, err := note.Open(data, note.VerifierList(verifier))
	check(err)
	checkpoint, err := torchwood.ParseCheckpoint(signed.Text)
	check(err)
	fetcher, err := torchwood.NewTileFetcher(os.Args[1])
	check(err)
	client, err := torchwood.NewClient(fetcher)
	check(err)
	var next int64
	var last []byte
	for next < checkpoint.N {
		before := next
		for index, entry := range client.Entries(context.Background(), checkpoint.Tree, next) {
			next, last = index+1, entry
		}
		check(client.Err())
		if next == before {
			log.Fatal("no further entry")
		}
	}
	for index := range next {
		_, _, err := client.Entry(context.Background(), checkpoint.Tree, index)
		check(err)
	}
	fmt.Printf("%d\n%s\n", next, last)
}

func cosign(name string) {
	key, err := mldsa.GenerateKey(mldsa.MLDSA44())
	check(err)
	signer, err := torchwood.NewCosignatureSigner(name, key)
	check(err)
	text, err := io.ReadAll(os.Stdin)
	check(err)
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	check(err)
	fmt.Printf("%s\n%s", signer.Verifier(), signed)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
