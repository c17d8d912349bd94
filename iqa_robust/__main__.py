"""`python -m iqa_robust` is `iqa-robust`."""

from iqa_robust.cli.main import main

main()
