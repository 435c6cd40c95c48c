"""What connects the package to others. Each module needs the extra of its name; nothing else in the package does."""
