"""What pytest leaves alone here: code for the processes of the drills."""

collect_ignore = ["inject"]
