def test_x(account):
    print(account)
