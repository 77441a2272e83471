"""Ways for programs to start warm without a line of code in them: any program, and some that need more."""
