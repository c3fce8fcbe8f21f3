"""The console: pages in a browser, one module each. No endpoint that programs call."""
