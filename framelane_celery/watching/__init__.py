"""The part of a worker that looks at jobs and the clock, moves records on, and sends wake-ups."""
