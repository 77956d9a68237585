"""``ipnctl run``: programs written for AF_IPN, on kernels without it."""
