"""The Hub: fetching with verification, publishing in one commit, bounds on foreign files, and errors with a remedy."""
