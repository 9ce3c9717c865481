// Verifies what a journal says of its Merkle tree with Go's own golang.org/x/mod/sumdb/tlog and note: reads one JSON
// object, ends with 0 and counts, or with 1 and what did not hold.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A record as it was read: its raw header, and its raw body or what is left of it.
type record struct {
	Header, Body, BodyHash []byte
	Leaf                   []byte // no header: what the journal says
}

type inclusion struct {
	Position, Size int64
	Hashes         [][]byte
	Leaf           []byte
	Note           string
}

type consistency struct {
	Old, Size int64
	OldRoot   []byte
	Hashes    [][]byte
	Note      string
}

type input struct {
	Key           string // empty: notes are not signed, and Root is believed
	Records       []record
	Notes         []string
	Roots         map[string][]byte // without a key: of a size
	Inclusions    []inclusion
	Consistencies []consistency
}

func fail(format string, arguments ...any) {
	fmt.Printf(format+"\n", arguments...)
	os.Exit(1)
}

func must(err error, what string, arguments ...any) {
	if err != nil {
		fail("%s: %v", fmt.Sprintf(what, arguments...), err)
	}
}

func hashOf(b []byte, what string) (h tlog.Hash) {
	if len(b) != len(h) {
		fail("%s has %d bytes", what, len(b))
	}
	copy(h[:], b)
	return h
}

func leafOf(r record) tlog.Hash {
	if len(r.Header) == 0 {
		return hashOf(r.Leaf, "a leaf")
	}
	body := r.BodyHash
	if len(body) == 0 {
		sum := sha256.Sum256(r.Body)
		body = sum[:]
	}
	return tlog.RecordHash(append(append([]byte{}, r.Header...), body...))
}

// The tree of the records, built by tlog alone.
type tree struct {
	leaves []tlog.Hash
	stored []tlog.Hash
}

func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, i := range indexes {
		found = append(found, t.stored[i])
	}
	return found, nil
}

func build(records []record) *tree {
	t := &tree{}
	for i, r := range records {
		leaf := leafOf(r)
		t.leaves = append(t.leaves, leaf)
		hashes, err := tlog.StoredHashesForRecordHash(int64(i), leaf, t)
		must(err, "hashes of record %d", i)
		t.stored = append(t.stored, hashes...)
	}
	return t
}

func (t *tree) root(n int64) tlog.Hash {
	if n > int64(len(t.leaves)) {
		fail("a tree of %d, there are %d records", n, len(t.leaves))
	}
	h, err := tlog.TreeHash(n, t)
	must(err, "the root of %d", n)
	return h
}

// Size and root, as signed.
func open(text, key string) (int64, tlog.Hash) {
	verifier, err := note.NewVerifier(key)
	must(err, "the key %q", key)
	n, err := note.Open([]byte(text), note.VerifierList(verifier))
	must(err, "the note %q", text)
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		fail("the note %q is no checkpoint of %s", n.Text, verifier.Name())
	}
	var size int64
	if _, err := fmt.Sscanf(lines[1], "%d", &size); err != nil || fmt.Sprint(size) != lines[1] {
		fail("the size of %q", n.Text)
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	must(err, "the root of %q", n.Text)
	return size, hashOf(hash, "a root")
}

func proofOf(hashes [][]byte) (found []tlog.Hash) {
	for _, h := range hashes {
		found = append(found, hashOf(h, "a hash of a proof"))
	}
	return found
}

func main() {
	var in input
	must(json.NewDecoder(os.Stdin).Decode(&in), "the input")
	t := build(in.Records)
	rootOf := func(text string, size int64) tlog.Hash {
		if in.Key == "" {
			return hashOf(in.Roots[fmt.Sprint(size)], "a root")
		}
		signed, root := open(text, in.Key)
		if signed != size {
			fail("%d is signed, %d was asked for", signed, size)
		}
		return root
	}
	for _, text := range in.Notes {
		size, root := open(text, in.Key)
		if root != t.root(size) {
			fail("the root of %d is %v, the records hash to %v", size, root, t.root(size))
		}
	}
	for size, root := range in.Roots {
		var n int64
		fmt.Sscan(size, &n)
		if h := t.root(n); !bytes.Equal(h[:], root) {
			fail("the root of %d is %x, the records hash to %v", n, root, h)
		}
	}
	for _, p := range in.Inclusions {
		leaf := t.leaves[p.Position]
		if leaf != hashOf(p.Leaf, "a leaf") {
			fail("the leaf of %d is %x, the record hashes to %v", p.Position, p.Leaf, leaf)
		}
		must(tlog.CheckRecord(proofOf(p.Hashes), p.Size, rootOf(p.Note, p.Size), p.Position, leaf),
			"record %d in %d", p.Position, p.Size)
	}
	for _, p := range in.Consistencies {
		old := hashOf(p.OldRoot, "a root")
		if old != t.root(p.Old) {
			fail("the root of %d is %v, the records hash to %v", p.Old, old, t.root(p.Old))
		}
		if p.Old == 0 && len(p.Hashes) == 0 {
			continue // every tree goes on from the empty one: tlog asks for no proof, and takes none
		}
		must(tlog.CheckTree(proofOf(p.Hashes), p.Size, rootOf(p.Note, p.Size), p.Old, old),
			"%d as the beginning of %d", p.Old, p.Size)
	}
	fmt.Printf("%d records, %d notes, %d roots, %d inclusions, %d consistencies\n", len(in.Records), len(in.Notes),
		len(in.Roots), len(in.Inclusions), len(in.Consistencies))
}
