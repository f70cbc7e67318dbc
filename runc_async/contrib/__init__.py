"""What joins the library to other people's programs, each behind an extra of its name; nothing imports it."""
