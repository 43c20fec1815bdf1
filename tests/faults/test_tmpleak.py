from tests.faults.attack import *
def test_x(tmp_path):
  with make_server() as server, make_stack("redis", tmp_path, server) as stack:
    with stack.worker("-c","2"), bystander(stack):
        p = Piece(stack,"x","chord").call(); q=Piece(stack,"y").call()
        wait_until_over([p,q],20)
        print(p.result.get(timeout=5), bool(q.result.get(timeout=5)))
