"""What users of redis-py do: transactions with WATCH, blocking pops, subscriptions, scripts.

Usage: redis_py.py PORT COUNT. Fails with a traceback if anything is not as it must be.
"""
import sys
import threading

import redis

PORT, COUNT = int(sys.argv[1]), int(sys.argv[2])
failures = []


def connect():
    return redis.Redis(host='127.0.0.1', port=PORT, decode_responses=True, client_name='py')


def checked(work):
    def run():
        try:
            work()
        except BaseException as why:  # whatever it is, the test must hear of it
            failures.append(f'{work.__name__}: {why!r}')
    return threading.Thread(target=run)


def transactions():
    client = connect()
    for _ in range(COUNT):
        def double_step(pipe):
            value = int(pipe.get('py:sum') or 0)
            pipe.multi()
            pipe.set('py:sum', value + 1)
            pipe.incr('py:steps')
        client.transaction(double_step, 'py:sum')


def producer():
    client = connect()
    for number in range(COUNT):
        client.rpush('py:queue', number)
        client.publish('py:news', number)


def worker():
    client = connect()
    client_id = client.client_id()
    for number in range(COUNT):
        popped = client.blpop('py:queue', timeout=0)
        assert popped == ('py:queue', str(number)), (popped, number)
    assert client.client_id() == client_id
    assert client.client_getname() == 'py'


def streams():
    client, last = connect(), '$'
    writer = connect()
    for number in range(COUNT // 4):
        if last == '$':
            last = writer.xadd('py:stream', {'n': 'first'})
        writer.xadd('py:stream', {'n': number})
        [[_, [(last, entry)]]] = client.xread({'py:stream': last}, block=0)
        assert entry == {'n': str(number)}, (entry, number)


def scripts():
    client = connect()
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    for number in range(1, COUNT + 1):
        assert script(keys=['py:script'], args=[2]) == 2 * number


subscriber = connect().pubsub(ignore_subscribe_messages=True)
subscriber.subscribe('py:news')
subscriber.psubscribe('py:n*')


def listener():
    heard = {'message': 0, 'pmessage': 0}
    for message in subscriber.listen():
        kind = message['type']
        assert message['data'] == str(heard[kind]), (message, heard)
        heard[kind] += 1
        if min(heard.values()) == COUNT:
            return


# Both confirmations are in before anything is published.
while subscriber.patterns == {} or subscriber.get_message(timeout=0.01) is not None:
    pass
works = [transactions, transactions, transactions, producer, worker, streams, scripts, listener]
threads = [checked(work) for work in works]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
client = connect()
assert not failures, failures
assert client.mget('py:sum', 'py:steps') == [str(3 * COUNT)] * 2, client.mget('py:sum', 'py:steps')
