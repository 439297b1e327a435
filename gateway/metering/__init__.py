"""What registers mean: words to exact numbers, numbers to readings. Nothing here does I/O."""
