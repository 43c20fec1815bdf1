"""`make kept`: take over the names as they are now. What is gone or has changed stays in the file, marked."""

from tests.kept.collect import names
from tests.kept.file import FILE, merged, read

if __name__ == "__main__":
    FILE.write_text("\n".join(merged(read(), names())) + "\n", "utf-8")
    print(f"{FILE.relative_to(FILE.parents[2])} is written: read its diff. A line with '- ' needs one in CHANGELOG.md.")
