"""The Hub: what is fetched and verified, what is published in one commit, what a foreign file may be, and errors with a remedy."""
