"""The commands of `huigan`, a module for each noun; each calls one function of a room and tells what it returns."""
