def write_report(folder, statistics): pass
