"""Nothing is shared here but what `attack` gives: each module makes the server, the stack and the workers it attacks."""
