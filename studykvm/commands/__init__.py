"""One module a command, each with `main(argv) -> int`; `studykvm.cli` holds the table."""
