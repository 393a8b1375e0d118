"""Commands of `carcond`, a module each: they call modules of both packages and contain no logic."""
