"""The command line: argv in, text and exit codes out. No decision about containers is made here."""
