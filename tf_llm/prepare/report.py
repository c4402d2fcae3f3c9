def write_report(folder, statistics):
    (folder / "report.html").write_text("")
