"""Plans: what a long run will take in time, memory and disk, measured on a little of the work."""
