"""The library's own version, as discovery tells it."""

VERSION = "0.1.0"
