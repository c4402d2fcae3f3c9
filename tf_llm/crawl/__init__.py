"""PAGES: where raw pages come from. Every source is re-iterable and yields `contracts.Page`."""
