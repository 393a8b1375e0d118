"""What `carcond doctor` looks at, finds and advises. It changes nothing."""
