"""DOCUMENTS: pages become readable text, text becomes words, words become token ids."""
