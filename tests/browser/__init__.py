"""The example site in headless Chromium. A package, so that its fixtures end with it (scope "package")."""
