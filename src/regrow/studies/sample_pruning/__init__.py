"""Which samples to train on: does any choice by loss beat choice at random, at equal steps?"""
