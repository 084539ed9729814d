"""The page: a folder for each tab, and `page`, which joins them."""
