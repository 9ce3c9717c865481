#!/bin/sh
# embed.sh FILE SYMBOL: prints C that holds the file's bytes as `SYMBOL` and their number as `SYMBOL_bytes`.
set -e
echo "/* Made from $(basename "$1"); do not edit. */"
echo "#include <stddef.h>"
echo "#include <stdint.h>"
echo "extern const uint8_t $2[];"
echo "extern const size_t $2_bytes;"
echo "const uint8_t $2[] = {"
od -An -v -tx1 "$1" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'
echo "};"
echo "const size_t $2_bytes = sizeof($2);"
