"""What visits cost, and the tenants' budgets."""
