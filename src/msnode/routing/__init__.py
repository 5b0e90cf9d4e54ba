"""Which studies are read, with what, how soon and for whom: the rules, and the file that holds them."""
