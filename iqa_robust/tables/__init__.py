"""Boards, CSV, the HTML report and the check of submissions, all derived from run records. Never imports torch."""
