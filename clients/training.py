"""Local meta-training of a cohort: from train messages to updates."""

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict

from clients.failures import error_reply
from clients.request import Request, read_request
from fedmeta.experiment import OPTIMISERS
from fedmeta.optimisers import schedule
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Episode
from fedmeta.training import LocalPlan, train_cohort
from fedmeta.wire import ARRAYS, CONFIG, METRICS, WEIGHT, config_record, metric_record, vector_record

import torch
from torch import Tensor
