"""Running the real Triton: its wheel, its processes and what they leave behind, starting it and stopping it emptied."""
