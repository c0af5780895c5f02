"""What is kept of captured requests and answers: a policy for each field, encrypted segments, and reading them back."""
