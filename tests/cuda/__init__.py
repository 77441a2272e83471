"""What megacache does on a GPU as far as the host decides it, shown on a stand-in: no kernel runs, no number counts."""
