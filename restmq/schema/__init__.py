"""Input fields and answers: one place that checks, renders and describes each of them."""
