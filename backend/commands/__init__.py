"""The commands of `carcond`, a module each: they name rooms of both packages and do nothing themselves."""
