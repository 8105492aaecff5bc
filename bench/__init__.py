"""Tools for those who test the harness or write plug-ins for it; nothing in the product imports them."""
