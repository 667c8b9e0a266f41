"""The command `recross`: one module a sub-command, `main` which starts them, and what they share: arguments, errors, the console."""
