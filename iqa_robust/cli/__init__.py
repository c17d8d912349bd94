"""The command line: one small file per verb. Parse, call one function, print."""
