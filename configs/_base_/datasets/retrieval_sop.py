# Stanford Online Products, the official split by products; else as CUB, with longer epochs.
# data/Stanford_Online_Products holds Ebay_train.txt, Ebay_test.txt and the folders of images.
_base_ = './retrieval_cub.py'

data = dict(type='mmkd_ext.StanfordOnlineProducts', data_root='data/Stanford_Online_Products')

train_dataloader = dict(batch_sampler=dict(num_batches=500), dataset=data)
val_dataloader = dict(dataset=data)
test_dataloader = dict(dataset=data)

val_evaluator = dict(topk=(1, 10, 100, 1000))
test_evaluator = val_evaluator
