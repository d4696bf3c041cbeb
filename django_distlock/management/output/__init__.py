"""What commands print: texts and tables for people, JSON for programs."""
