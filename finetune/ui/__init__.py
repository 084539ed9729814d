"""The page: one module a tab, and `page`, which joins them."""
